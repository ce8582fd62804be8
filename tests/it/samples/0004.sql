insert into vector_stores (id, project_id, name, expires_after_days, embedding_model, dimensions)
    values ('vs_sample', 'proj_sample', 'Sample', 7, 'sample-model', 3);
insert into vector_store_batches (id, project_id, vector_store_id)
    values ('vsfb_sample', 'proj_sample', 'vs_sample');
insert into vector_store_files (vector_store_id, file_id, project_id, batch_id, status,
                                chunk_tokens, chunk_overlap, usage_bytes)
    values ('vs_sample', 'file-sample', 'proj_sample', 'vsfb_sample', 'completed', 800, 400, 3);
insert into chunks (vector_store_id, store_file, ordinal, content, tokens, overlap_bytes, lexemes)
    select vector_store_id, seq, 0, 'abc', 1, 0, to_tsvector('english', 'abc')
    from vector_store_files;
insert into chunk_embeddings (chunk_id, vector_store_id, store_file, embedding)
    select id, vector_store_id, store_file, '[1,0,0]' from chunks;
insert into dropped_store_files (store_file, vector_store_id) values (0, 'vs_gone');
insert into common_lexemes (vector_store_id, lexeme, chunks) values ('vs_sample', 'abc', 9000);
