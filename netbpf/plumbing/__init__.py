"""What takes several rooms together: all that handles a packet at a device, and watching it."""
