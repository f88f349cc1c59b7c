"""Self-supervision of the codec's backbone: MoCo v2 (Chen, Fan, Girshick, He, 2020) with
ContrastiveCrop (Peng et al., CVPR 2022), as tang2025 trains it."""
