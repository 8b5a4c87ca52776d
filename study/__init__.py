"""Train the Runs of a study of transfer learning through double descent."""
