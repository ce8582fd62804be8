-- What a search reads of very many chunks is short: their texts and words lie apart. Rows that are
-- there stay as they are.
alter table chunks set (toast_tuple_target = 128);

-- Every search of a store asks which files it is not to find.
create index vector_store_files_unfinished on vector_store_files (vector_store_id)
    where status = 'in_progress';
