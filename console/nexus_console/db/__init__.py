"""The console's database: its tables and the engines that reach it."""
