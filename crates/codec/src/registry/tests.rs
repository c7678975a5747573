//! Tests of the registry client against answers that are made up; a real registry is asked in `tests/it/wire.rs`.
#![expect(clippy::unwrap_used, reason = "tests")]

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// A server that gives one answer, and the request it got.
async fn serve(status: &str, body: &str) -> (RegistrySettings, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let request = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 8192];
        let n = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request[..n].to_vec()).unwrap()
    });
    (RegistrySettings::new(format!("http://us%65r:p%40ss@{address}/apis/ccompat/v7/")), request)
}

async fn look_up(status: &str, body: &str) -> Result<Arc<WriterSchema>, LookupError> {
    let (settings, _request) = serve(status, body).await;
    RegistryClient::new(&settings).unwrap().by_id(7).await
}

#[tokio::test]
async fn a_schema_is_found_with_the_credentials_of_the_address() {
    let body = serde_json::json!({ "schema": r#"{"type":"record","name":"a.B","fields":[]}"# }).to_string();
    let (settings, request) = serve("200 OK", &body).await;
    let found = RegistryClient::new(&settings).unwrap().by_id(7).await.unwrap();
    assert_eq!(found.name(), "a.B");
    let request = request.await.unwrap();
    assert!(request.starts_with("GET /apis/ccompat/v7/schemas/ids/7 HTTP/1.1"), "{request}");
    // user:p@ss
    assert!(request.contains("authorization: Basic dXNlcjpwQHNz"), "{request}");
}

#[tokio::test]
async fn only_the_registrys_own_code_denies_a_schema() {
    let denied =
        look_up("404 Not Found", r#"{"error_code":40403,"message":"Schema not found"}"#).await.unwrap_err();
    assert!(
        matches!(&denied, LookupError::NotFound(text) if text.contains("(Schema not found)")),
        "{denied}"
    );
    for (status, body, words) in [
        ("404 Not Found", "<html>", "check the path of registry.url"),
        ("404 Not Found", r#"{"error_code":0,"message":"no resource"}"#, "HTTP 404: no resource"),
        ("401 Unauthorized", r#"{"error_code":401,"message":"Unauthorized"}"#, "check the credentials"),
        ("503 Service Unavailable", "", "HTTP 503"),
        ("200 OK", "<html>", "none of a schema registry"),
    ] {
        let error = look_up(status, body).await.unwrap_err();
        assert!(matches!(&error, LookupError::Unavailable(text) if text.contains(words)), "{error}");
        assert!(!error.to_string().contains("p@ss") && !error.to_string().contains("p%40ss"), "{error}");
    }
}

#[tokio::test]
async fn a_schema_that_is_no_avro_is_denied_in_words() {
    for (body, words) in [
        (r#"{"schema":"syntax = \"proto3\";","schemaType":"PROTOBUF"}"#, "of type PROTOBUF"),
        (r#"{"schema":"\"x.Y\"","references":[{"name":"x.Y"}]}"#, "refers to other subjects"),
        (r#"{"schema":"{}"}"#, "not an Avro schema"),
    ] {
        let error = look_up("200 OK", body).await.unwrap_err();
        assert!(matches!(&error, LookupError::NotFound(text) if text.contains(words)), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = RegistryClient::new(&RegistrySettings::new(&url)).unwrap();
    let error = client.by_id(1).await.unwrap_err();
    assert!(
        matches!(&error, LookupError::Unavailable(text) if text.contains("onnection refused")),
        "{error}"
    );
    let error = client.register("task", "fleetlog.task.Created").await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_version_that_the_registry_refuses_names_the_subject() {
    let body = r#"{"error_code":409,"message":"incompatible with an earlier schema"}"#;
    let (settings, request) = serve("409 Conflict", body).await;
    let client = RegistryClient::new(&settings).unwrap();
    let error = client.register("prod-task", "fleetlog.task.Created").await.unwrap_err();
    let words = "the schema registry refused subject `prod-task-fleetlog.task.Created`: HTTP 409: incompatible with an \
                 earlier schema";
    assert_eq!(error.to_string(), words);
    assert!(
        request
            .await
            .unwrap()
            .starts_with("POST /apis/ccompat/v7/subjects/prod-task-fleetlog.task.Created/versions")
    );
    let error = client.register("prod-task", "fleetlog.task.Nothing").await.unwrap_err();
    assert_eq!(error, RegistryError::NoSchema("fleetlog.task.Nothing".to_owned()));
}

#[test]
fn settings_show_no_secrets_and_name_what_is_wrong() {
    let shown = format!(
        "{:?}",
        RegistrySettings {
            auth: Some(RegistryAuth::Bearer("t0ken".to_owned())),
            ..RegistrySettings::new("https://u:s3cret@host/")
        }
    );
    assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
    for url in ["registry:8081", "ftp://host", ""] {
        assert!(
            matches!(RegistryClient::new(&RegistrySettings::new(url)), Err(RegistryError::Settings(_))),
            "{url}"
        );
    }
}
