//! A database of one's own on the stack's PostgreSQL.

use std::thread;

use anyhow::{Context, Result, bail};
use sqlx::{Connection, Executor, PgConnection};

use crate::stack::{Stack, unique};

/// A fresh database, dropped with this value, whoever is still connected to it.
#[derive(Debug)]
pub struct Database {
    url: String,
    name: String,
    server_url: String,
}

/// Makes an empty database on the stack's PostgreSQL.
///
/// # Errors
/// If the server can't be reached or refuses.
pub async fn fresh_database(stack: &Stack) -> Result<Database> {
    Database::on(&stack.postgres_url).await
}

impl Database {
    /// Makes an empty database on the server of this URL.
    ///
    /// # Errors
    /// If the URL has no database in it, or the server can't be reached or refuses.
    pub async fn on(server_url: &str) -> Result<Self> {
        let name = unique("db").trim_end_matches('-').replace('-', "_");
        execute(server_url, &format!("CREATE DATABASE {name}")).await?;
        Ok(Self { url: with_database(server_url, &name)?, name, server_url: server_url.to_owned() })
    }

    /// The URL of this database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Database {
    /// On a thread with a runtime of its own: a drop may happen inside a runtime, which must not be blocked on.
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let server_url = self.server_url.clone();
        let dropped = thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(execute(&server_url, &statement))
        })
        .join();
        if !matches!(dropped, Ok(Ok(()))) {
            eprintln!("testkit: database {} was not dropped: {dropped:?}", self.name);
        }
    }
}

async fn execute(url: &str, statement: &str) -> Result<()> {
    let mut connection =
        PgConnection::connect(url).await.with_context(|| format!("cannot connect for {statement}"))?;
    connection.execute(statement).await.with_context(|| statement.to_owned())?;
    connection.close().await?;
    Ok(())
}

/// The URL with another database in its path; its query stays.
fn with_database(url: &str, name: &str) -> Result<String> {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let Some((server, _)) =
        address.rsplit_once('/').filter(|(server, _)| server.contains("://") && !server.ends_with('/'))
    else {
        bail!("the PostgreSQL URL names no database: expected postgres://host/database");
    };
    Ok(query.map_or_else(|| format!("{server}/{name}"), |query| format!("{server}/{name}?{query}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_replaced_and_the_query_stays() {
        assert_eq!(
            with_database("postgres://u:p@h:1/a?sslmode=disable", "b").unwrap(),
            "postgres://u:p@h:1/b?sslmode=disable"
        );
        assert_eq!(with_database("postgres://h/a", "b").unwrap(), "postgres://h/b");
        assert!(with_database("postgres://h", "b").is_err());
    }
}
