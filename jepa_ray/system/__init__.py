"""What the operating system gives and takes: files that appear whole, disks that are full, how far this process is."""
