// SPDX-License-Identifier: BSD-2-Clause
// Servers and a client of Java's: Echo nio PORT | blocking PORT | ask nio|blocking PORT CONNECTIONS ROUNDS. Servers send back
// what comes until the client ends its half, then end theirs. The client prints how much came back right on each connection.
import java.io.DataInputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.Arrays;
import java.util.Iterator;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

public class Echo {
	static final InetAddress HOST = InetAddress.getLoopbackAddress();

	/** One thread, a selector, and for each connection a buffer that is read into while it has room. */
	static void nio(int port) throws Exception {
		Selector selector = Selector.open();
		ServerSocketChannel listener = ServerSocketChannel.open();
		listener.bind(new InetSocketAddress(HOST, port), 512);
		listener.configureBlocking(false);
		listener.register(selector, SelectionKey.OP_ACCEPT);
		while (true) {
			selector.select();
			for (Iterator<SelectionKey> keys = selector.selectedKeys().iterator(); keys.hasNext(); ) {
				SelectionKey key = keys.next();
				keys.remove();
				if (key.isAcceptable()) {
					SocketChannel accepted = listener.accept();
					accepted.configureBlocking(false);
					accepted.register(selector, SelectionKey.OP_READ, ByteBuffer.allocateDirect(50000));
				} else {
					turn(key);
				}
			}
		}
	}

	static void turn(SelectionKey key) throws Exception {
		SocketChannel channel = (SocketChannel) key.channel();
		ByteBuffer buffer = (ByteBuffer) key.attachment();
		boolean ended = key.isReadable() && channel.read(buffer) < 0;
		buffer.flip();
		channel.write(buffer);
		buffer.compact();
		if (ended || !channel.isOpen()) {
			channel.close();
			return;
		}
		key.interestOps((buffer.hasRemaining() ? SelectionKey.OP_READ : 0) | (buffer.position() > 0 ? SelectionKey.OP_WRITE : 0));
	}

	/** A thread for each connection. */
	static void blocking(int port) throws Exception {
		ExecutorService threads = Executors.newCachedThreadPool();
		ServerSocket listener = new ServerSocket(port, 512, HOST);
		while (true) {
			Socket accepted = listener.accept();
			threads.submit(() -> {
				try (accepted) {
					accepted.getInputStream().transferTo(accepted.getOutputStream());
					accepted.shutdownOutput();
				}
				return null;
			});
		}
	}

	static byte[] data(int connection, int round) {
		byte[] data = new byte[1 + (connection * 7919 + round * 104729) % 100000];
		new Random(connection * 1000 + round).nextBytes(data);
		return data;
	}

	static int askBlocking(int port, int connection, int rounds) throws Exception {
		int right = 0;
		try (Socket socket = new Socket(HOST, port)) {
			socket.setTcpNoDelay(true);
			socket.setSoTimeout(20000);
			OutputStream out = socket.getOutputStream();
			DataInputStream in = new DataInputStream(socket.getInputStream());
			for (int round = 0; round < rounds; round++) {
				byte[] data = data(connection, round), back = new byte[data.length];
				out.write(data);
				in.readFully(back);
				right += Arrays.equals(data, back) ? 1 : 0;
			}
			socket.shutdownOutput();
			return in.read() == -1 ? right : -1;
		}
	}

	/** A selector of its own, that waits with a limit; sends and receives as they become ready. */
	static int askNio(int port, int connection, int rounds) throws Exception {
		int right = 0;
		try (Selector selector = Selector.open(); SocketChannel channel = SocketChannel.open()) {
			channel.configureBlocking(false);
			SelectionKey key = channel.register(selector, SelectionKey.OP_CONNECT);
			channel.connect(new InetSocketAddress(HOST, port));
			while (!channel.finishConnect())
				await(selector);
			for (int round = 0; round < rounds; round++) {
				byte[] data = data(connection, round);
				ByteBuffer out = ByteBuffer.wrap(data), back = ByteBuffer.allocate(data.length);
				while (back.hasRemaining()) {
					channel.write(out);
					if (channel.read(back) == 0) {
						key.interestOps(SelectionKey.OP_READ | (out.hasRemaining() ? SelectionKey.OP_WRITE : 0));
						await(selector);
					}
				}
				right += Arrays.equals(data, back.array()) ? 1 : 0;
			}
		}
		return right;
	}

	static void await(Selector selector) throws Exception {
		if (selector.select(20000) == 0)
			throw new Exception("nothing became ready in 20 s");
		selector.selectedKeys().clear();
	}

	static void ask(String how, int port, int connections, int rounds) throws Exception {
		Thread[] threads = new Thread[connections];
		int[] right = new int[connections];
		for (int i = 0; i < connections; i++) {
			int number = i;
			threads[i] = new Thread(() -> {
				try {
					right[number] = how.equals("nio") ? askNio(port, number, rounds) : askBlocking(port, number, rounds);
				} catch (Exception error) {
					error.printStackTrace();
				}
			});
			threads[i].start();
		}
		for (Thread thread : threads)
			thread.join();
		System.out.println(Arrays.toString(right));
	}

	public static void main(String[] words) throws Exception {
		if (words[0].equals("nio"))
			nio(Integer.parseInt(words[1]));
		else if (words[0].equals("blocking"))
			blocking(Integer.parseInt(words[1]));
		else
			ask(words[1], Integer.parseInt(words[2]), Integer.parseInt(words[3]), Integer.parseInt(words[4]));
	}
}
