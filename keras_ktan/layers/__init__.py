"""The layers that stand between the two models: T2S and the discriminator."""
