"""From the records and statistics of operating points to curves, BD tables and intervals."""
