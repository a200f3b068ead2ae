"""Linux network plumbing with BPF: the public names, loaded when first used."""
