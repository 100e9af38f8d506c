"""The store on Supabase."""
