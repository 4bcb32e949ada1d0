//! nginx, as Debian packages it.

use super::Front;

/// HTTP/1.1 upstream only: this nginx speaks no HTTP/2 to upstreams.
pub(in crate::peers) fn nginx(front: &Front) -> String {
    let Front {
        listen, upstream, ..
    } = front;
    let directory = front.directory.display();
    // Workers of a master that runs as root would become somebody who may not enter the directory.
    let user = if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    let (ssl, files) = match &front.certificate {
        None => ("", String::new()),
        Some(files) => (
            " ssl",
            format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;",
                files.chain.display(),
                files.key.display()
            ),
        ),
    };
    let (log, http, back, location) = if front.protected {
        (
            format!(
                r#"log_format json escape=json '{{"time":"$time_iso8601","method":"$request_method","path":"$uri","status":$status,"duration":$request_time,"bytes_in":$request_length,"bytes_out":$body_bytes_sent,"client":"$remote_addr","user_agent":"$http_user_agent","host":"$host","protocol":"$server_protocol","upstream":"$upstream_addr","request_id":"$request_id"}}';
    access_log {directory}/access.log json buffer=64k flush=1s;"#
            ),
            "limit_req_zone $http_x_api_key zone=keys:10m rate=1000000r/s;",
            " max_fails=5 fail_timeout=10s",
            "limit_req zone=keys burst=100000 nodelay;
            limit_req_status 429;
            proxy_set_header X-Request-Id $request_id;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_next_upstream error timeout http_502 http_503 http_504;
            proxy_next_upstream_tries 3;",
        )
    } else {
        ("access_log off;".to_owned(), "", "", "")
    };
    format!(
        r#"{user}daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
events {{ worker_connections 16384; }}
http {{
    {log}
    {http}
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream back {{
        server {upstream}{back};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen}{ssl} backlog=4096;
        {files}
        location / {{
            {location}
            proxy_pass http://back;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"#
    )
}
