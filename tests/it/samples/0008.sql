-- A chunk whose text lies apart from its row.
insert into chunks (vector_store_id, store_file, ordinal, content, tokens, overlap_bytes, lexemes)
    select vector_store_id, store_file, 1, text, 600, 0, to_tsvector('english', text)
    from chunks, (select string_agg(md5(n::text), ' ') as text from generate_series(1, 100) as n) as long;
