-- A file that is indexed may have an error, too: a part of its text could not be read.
alter table vector_store_files drop constraint vector_store_files_error_iff_failed;
alter table vector_store_files add constraint vector_store_files_error_if_failed
    check (case status when 'failed' then last_error is not null
                       when 'completed' then true
                       else last_error is null end);
