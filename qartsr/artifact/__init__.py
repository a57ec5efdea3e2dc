"""The file of a package as bytes and numbers, without torch: its header, its table of tensors, its codes."""
