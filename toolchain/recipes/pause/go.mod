module marketlake/pause

go 1.26
