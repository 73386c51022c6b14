"""Operations on composites and on trees of files."""
