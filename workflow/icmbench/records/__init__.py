"""What an evaluation leaves of each image: rows, and statistics that metrics follow from."""
