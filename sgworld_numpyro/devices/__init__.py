"""Several devices and several processes: chains spread over them, or the rows of the data."""
