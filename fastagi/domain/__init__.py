"""Recording, call and delivery as frozen data with pure rules. No I/O, no asyncio, no clock."""
