"""Jobs as users describe them, and what is durable of them."""
