"""Everything that happened in a campaign: SQLite, its projection to git, and money."""
