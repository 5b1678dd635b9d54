"""What every kind of trial shares: settings, records and their ledger, the questions, and the index under test."""
