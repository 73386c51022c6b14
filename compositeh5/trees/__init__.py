"""Operations on composites and on trees of files. The package ``compositeh5`` has the names for users."""
