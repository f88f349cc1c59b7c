"""The layered codec of zhang2022: a semantic and a texture layer, trained with a discriminator."""
