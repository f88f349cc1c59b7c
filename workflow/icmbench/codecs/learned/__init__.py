"""Learned image codecs: CompressAI's architectures and ELIC, with real bitstreams."""
