"""The search loop: who asks, who evaluates, and what is told and kept, step by step."""
