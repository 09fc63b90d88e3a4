//! The engine: start to first token, and tokens per second, beside llama-server on the same file with the same threads
//! where `LLAMA_SERVER` names its executable.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;
use crate::client::request;
use crate::process::{Process, family, resident};

const ROUNDS: usize = 3;
const TOKENS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// A server under test.
struct Contender {
    name: &'static str,
    command: Box<dyn Fn(u16) -> Command>,
    path: &'static str,
    body: fn(usize) -> String,
}

/// Prints the tables.
pub async fn run() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let model = fixture()?;
    println!("\n### Start to first token\n\n| server | model | median |\n|---|---|---|");
    let demo = arriero(dir.path(), None)?;
    println!("| {} | builtin:demo | {:.2} s |", demo.name, median(first_tokens(&demo).await?));
    let mut contenders = vec![arriero(dir.path(), Some(&model))?];
    match std::env::var_os("LLAMA_SERVER") {
        Some(program) => contenders.push(llama_server(PathBuf::from(program), model.clone())),
        None => eprintln!("LLAMA_SERVER is not set: no comparison"),
    }
    let mut starts = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, starts) in contenders.iter().zip(&mut starts) {
            starts.push(first_token(contender).await?);
        }
    }
    for (contender, starts) in contenders.iter().zip(starts) {
        println!("| {} | 0.5B Q4_0 | {:.2} s |", contender.name, median(starts));
    }
    println!("\n### Tokens per second (0.5B Q4_0, {TOKENS} tokens per answer)\n");
    println!("| server | 1 stream | 4 streams | resident |\n|---|---|---|---|");
    let mut rates = vec![(Vec::new(), Vec::new(), 0); contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, (one, four, memory)) in contenders.iter().zip(&mut rates) {
            let (process, address) = start(contender).await?;
            first_answer(address, contender).await?;
            one.push(rate(address, contender, 1).await?);
            four.push(rate(address, contender, 4).await?);
            *memory = family(process.0.id()).into_iter().map(resident).sum::<u64>();
        }
    }
    for (contender, (one, four, memory)) in contenders.iter().zip(rates) {
        println!(
            "| {} | {:.1} | {:.1} | {:.0} MB |",
            contender.name,
            median(one),
            median(four),
            memory as f64 / 1e6
        );
    }
    Ok(())
}

fn fixture() -> Outcome<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_arriero")).with_file_name("examples/fixtures");
    let made = Command::new(program).arg("bench-llama").arg(env!("CARGO_TARGET_TMPDIR")).output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
    }
    Ok(PathBuf::from(String::from_utf8(made.stdout)?.trim()))
}

/// Arriero with the demo model, or with `model`.
fn arriero(dir: &Path, model: Option<&Path>) -> Outcome<Contender> {
    let config = dir.join(if model.is_some() { "model.yaml" } else { "demo.yaml" });
    let path = model.map_or("builtin:demo".into(), |path| path.display().to_string());
    let text = format!(
        "admin: \"off\"\nlog: {{ level: error }}\nmodels:\n  m: {{ path: \"{path}\", preload: true, parallel: 4, context: 1024 }}\n"
    );
    std::fs::write(&config, text)?;
    let command = move |port: u16| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
        command.arg("serve").arg("--config").arg(&config).arg("--listen").arg(format!("127.0.0.1:{port}"));
        command
    };
    let body = |tokens| {
        format!(
            "{{\"model\":\"m\",\"prompt\":\"Tell me a story.\",\"raw\":true,\"options\":{{\"num_predict\":{tokens}}}}}"
        )
    };
    Ok(Contender { name: "Arriero", command: Box::new(command), path: "/api/generate", body })
}

fn llama_server(program: PathBuf, model: PathBuf) -> Contender {
    let command = move |port: u16| {
        let mut command = Command::new(&program);
        // The same four sequences of 1024 tokens; threads are left to each server's own default, which is the cores here.
        command.arg("-m").arg(&model).args(["-np", "4", "-c", "4096", "--host", "127.0.0.1", "--port"]);
        command.arg(port.to_string());
        command
    };
    let body = |tokens| format!("{{\"prompt\":\"Tell me a story.\",\"stream\":true,\"n_predict\":{tokens}}}");
    Contender { name: "llama-server", command: Box::new(command), path: "/completion", body }
}

async fn start(contender: &Contender) -> Outcome<(Process, SocketAddr)> {
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let mut command = (contender.command)(port);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok((Process(child), SocketAddr::from(([127, 0, 0, 1], port))))
}

async fn first_tokens(contender: &Contender) -> Outcome<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(first_token(contender).await?);
    }
    Ok(times)
}

/// Seconds from the spawn to the first byte of a token, asked again and again as an impatient client does.
async fn first_token(contender: &Contender) -> Outcome<f64> {
    let from = Instant::now();
    let (_process, address) = start(contender).await?;
    first_answer(address, contender).await?;
    Ok(from.elapsed().as_secs_f64())
}

/// Asks for a token until it comes.
async fn first_answer(address: SocketAddr, contender: &Contender) -> Outcome<()> {
    let from = Instant::now();
    while answer(address, contender, 1).await.is_err() {
        if from.elapsed() > PATIENCE {
            return Err(format!("{} gave no token", contender.name).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Asks for `tokens` tokens and reads the answer to its end.
async fn answer(address: SocketAddr, contender: &Contender, tokens: usize) -> Outcome<()> {
    let mut stream = TcpStream::connect(address).await?;
    let bytes = request(contender.path, &(contender.body)(tokens));
    // Neither server keeps the connection then, so its end is the answer's end.
    let text = String::from_utf8(bytes)?.replacen("Host:", "Connection: close\r\nHost:", 1);
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err("not yet".into()) }
}

/// Tokens per second over `streams` answers at once.
async fn rate(address: SocketAddr, contender: &Contender, streams: usize) -> Outcome<f64> {
    let from = Instant::now();
    futures::future::try_join_all((0..streams).map(|_| answer(address, contender, TOKENS))).await?;
    Ok((streams * TOKENS) as f64 / from.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
