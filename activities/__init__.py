"""Effects: one class per outside thing, each activity safe to run twice.

Activities receive ids and return ids, counts, shas and short texts; prompts, messages and Claude's
output go through the store and never through Temporal.
"""
