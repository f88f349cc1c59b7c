"""icmbench: how many bits does a machine need to see?"""

__version__ = "0.1.0"
