"""What a recording, a call and a delivery are: frozen data and pure rules. No I/O, no asyncio, no clock."""
