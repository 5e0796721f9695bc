"""What is known of a NumPyro model: its energy on any rows, and what it must be for minibatches."""
