"""What ``antmmf text`` offers."""
