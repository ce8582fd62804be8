-- Vector stores: what is in them, the queue of files that are to be indexed, and the index.
create extension if not exists vector;
-- For one index over a store and its words.
create extension if not exists btree_gin;

create table vector_stores (
    id text collate "C" primary key,
    project_id text collate "C" not null references projects on delete cascade,
    seq bigint generated always as identity,
    created_at timestamptz not null default now(),
    name text,
    description text,
    metadata jsonb not null default '{}',
    expires_after_days integer,
    last_active_at timestamptz not null default now(),
    -- Set by the first file that is embedded, for good: vectors of two models cannot be compared.
    -- A store without them is searched by words alone.
    embedding_model text,
    dimensions integer,
    -- How many chunks there were when `common_lexemes` were last looked for.
    sampled_chunks bigint not null default 0,
    constraint vector_stores_dimensions_of_model
        check ((embedding_model is null) = (dimensions is null))
);
create index vector_stores_by_project on vector_stores (project_id, created_at, seq);

create table vector_store_batches (
    id text collate "C" primary key,
    project_id text collate "C" not null,
    vector_store_id text collate "C" not null references vector_stores on delete cascade,
    created_at timestamptz not null default now(),
    cancelled_at timestamptz
);
create index vector_store_batches_by_store on vector_store_batches (vector_store_id);

create table vector_store_files (
    vector_store_id text collate "C" not null references vector_stores on delete cascade,
    file_id text collate "C" not null references files on delete cascade,
    project_id text collate "C" not null,
    -- Names this row to its chunks: a file that is taken out and put in again is another one.
    seq bigint generated always as identity constraint vector_store_files_seq_unique unique,
    created_at timestamptz not null default now(),
    batch_id text collate "C" references vector_store_batches on delete set null,
    status text not null constraint vector_store_files_status_known
        check (status in ('in_progress', 'completed', 'cancelled', 'failed')),
    last_error jsonb,
    attributes jsonb not null default '{}',
    chunk_tokens integer not null,
    chunk_overlap integer not null,
    usage_bytes bigint not null default 0,
    -- Sums over its chunks, for ranking by words.
    chunks integer not null default 0,
    tokens bigint not null default 0,
    -- The hash of the contents, once they were read: the same contents are not indexed twice.
    sha256 bytea,
    -- The queue, as for runs: when a worker must look at the file next.
    due_at timestamptz,
    attempt integer not null default 0,
    failures integer not null default 0,
    lease_owner text,
    primary key (vector_store_id, file_id),
    constraint vector_store_files_due_iff_in_progress
        check ((due_at is not null) = (status = 'in_progress')),
    constraint vector_store_files_error_iff_failed
        check ((last_error is not null) = (status = 'failed'))
);
-- Counts and sums are taken from the index alone.
create index vector_store_files_by_store on vector_store_files (vector_store_id, created_at, seq)
    include (status, usage_bytes, chunks, tokens);
create index vector_store_files_by_file on vector_store_files (file_id);
create index vector_store_files_by_batch on vector_store_files (batch_id, created_at, seq)
    include (status, usage_bytes) where batch_id is not null;
create index vector_store_files_by_content on vector_store_files (project_id, sha256)
    where sha256 is not null;
create index vector_store_files_due on vector_store_files (due_at) where due_at is not null;

-- What is found. No foreign keys: a store of half a million chunks is gone when its row is, and
-- the sweep deletes the chunks afterwards, a few at a time.
create table chunks (
    id bigint generated always as identity primary key,
    vector_store_id text collate "C" not null,
    -- vector_store_files.seq
    store_file bigint not null,
    ordinal integer not null,
    page integer,
    heading text,
    content text not null,
    tokens integer not null,
    -- How many bytes at the beginning repeat the chunk before.
    overlap_bytes integer not null,
    lexemes tsvector not null,
    constraint chunks_ordinal_unique unique (store_file, ordinal)
);
-- The list of what is not sorted in yet is short, since every search reads it.
create index chunks_by_lexeme on chunks using gin (vector_store_id, lexemes)
    with (gin_pending_list_limit = 512);

-- Apart from the text, and not compressed, so that an exact scan reads nothing else.
create table chunk_embeddings (
    chunk_id bigint primary key,
    vector_store_id text collate "C" not null,
    store_file bigint not null,
    embedding halfvec not null
);
alter table chunk_embeddings alter column embedding set storage plain;
create index chunk_embeddings_by_store on chunk_embeddings (vector_store_id, store_file);

-- Lexemes that are in so many chunks of a large store that looking for them costs much and tells
-- nothing. Estimates from a sample.
create table common_lexemes (
    vector_store_id text collate "C" not null references vector_stores on delete cascade,
    lexeme text collate "C" not null,
    chunks bigint not null,
    primary key (vector_store_id, lexeme)
);

-- Files that are in a store no more, and whose chunks are.
create table dropped_store_files (
    store_file bigint primary key,
    vector_store_id text collate "C" not null
);
create index dropped_store_files_by_store on dropped_store_files (vector_store_id);
create function drop_store_file() returns trigger language plpgsql as $$
begin
    insert into dropped_store_files (store_file, vector_store_id)
    values (old.seq, old.vector_store_id) on conflict do nothing;
    return null;
end
$$;
create trigger vector_store_files_drop after delete on vector_store_files
    for each row execute function drop_store_file();

-- Who uses a store, for when it is deleted: the same expressions as the code's.
create index assistants_by_vector_store on assistants
    using gin ((tool_resources #> '{file_search,vector_store_ids}'))
    where tool_resources #> '{file_search,vector_store_ids}' <> '[]';
create index threads_by_vector_store on threads
    using gin ((tool_resources #> '{file_search,vector_store_ids}'))
    where tool_resources #> '{file_search,vector_store_ids}' <> '[]';
