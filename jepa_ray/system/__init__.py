"""Operating-system concerns: files written atomically, full disks, and the progress of this process."""
