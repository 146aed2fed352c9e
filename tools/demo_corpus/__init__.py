"""The corpus of the demo model: facts, small talk and stories, and the conversations written from them."""
