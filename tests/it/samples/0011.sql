-- A file of which a part could not be read.
update vector_store_files
    set last_error = '{"code": "invalid_file", "message": "Only part of the text was found."}'
    where status = 'completed';
