"""Train, compare and look into two small CNNs on MNIST."""
