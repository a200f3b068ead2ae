"""A QEMU guest with a newer kernel that runs one command."""
