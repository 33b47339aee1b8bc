"""What policies are asked: prompts, pairs of replies, demonstrations; from packages, the hub, files, the tiny world.

This room may import `rvlib.files` alone. Start with `prompts.Prompt`, `files.read_examples` and
`sources.load_examples`.
"""
