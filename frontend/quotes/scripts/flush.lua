-- Another generation, so that no fill under way lands in the emptied cache.
begin_generation(replication_id)
