"""bpf(2) and the kernel objects behind it: programs, maps, links, pins and chains of programs."""
