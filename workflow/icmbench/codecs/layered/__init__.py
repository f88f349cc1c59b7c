"""The layered codec of zhang2022: two layers, trained with a discriminator."""
