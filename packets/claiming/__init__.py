"""How a packet is claimed: the rule (`flow`), the values it speaks in (`effects`), its drivers."""
