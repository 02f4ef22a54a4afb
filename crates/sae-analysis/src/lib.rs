//! From finished runs to frontiers, tables, pictures and a report
