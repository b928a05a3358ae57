"""What several tests share. Nothing here is a test, and no test file imports from another test file."""
