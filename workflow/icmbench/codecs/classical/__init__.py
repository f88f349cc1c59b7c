"""Classical codecs, in this process or by external programs."""
