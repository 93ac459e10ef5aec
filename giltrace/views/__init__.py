"""What a person looks at while or after recording: the Perfetto UI, queries, the live top."""
