"""icmbench: how many bits does a machine need to see?"""
