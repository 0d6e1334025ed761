"""What ``antmmf data`` offers for videos and pictures."""
