"""What a finished run says: draws with settings, log-likelihoods, averages, predictions."""
